"""Independent pieces of work, in this process or over a cluster; the results are the same."""
