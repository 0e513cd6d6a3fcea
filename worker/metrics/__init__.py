"""What Prometheus is told of one worker process; docs/metrics.md lists every series."""
