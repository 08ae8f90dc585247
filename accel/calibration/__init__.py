"""What is found out about a pipeline once, by running it: schedules for the methods that need one."""
