"""What a process tells of itself to those who run it: logs, metrics, traces."""
