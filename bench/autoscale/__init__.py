"""What KEDA and the autoscaler of Kubernetes make of our figures, without a cluster."""
