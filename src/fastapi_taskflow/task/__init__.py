"""What a task is: facts and rules, without any I/O."""
