"""What plugin authors implement, and what they are told. All of it is public: see `sj_ann2snn.__all__`."""
