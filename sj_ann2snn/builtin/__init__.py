"""The built-in plugins. They use only public names of `sj_ann2snn`."""
