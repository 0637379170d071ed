"""The base classes that plugins implement, and the data that they receive. All public: see `sj_ann2snn.__all__`."""
