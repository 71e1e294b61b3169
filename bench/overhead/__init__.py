"""What the services add to a node: measured beside the raw queue, and beside other tools."""
