"""The built-in plugins. They use the public names of `sj_ann2snn` and nothing private."""
