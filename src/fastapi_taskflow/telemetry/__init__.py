"""What others are told of tasks: traces, metrics and logs. Each file is one sink of the same events."""
