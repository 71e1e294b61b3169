"""The planner: a request becomes a skeleton."""
