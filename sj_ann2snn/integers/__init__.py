"""Integer networks as plain data: read off a converted network, run in NumPy, their widths, what is not pure."""
