"""The Unix socket of this machine's workloads: SPIFFE's Workload API and Envoy's secret discovery, over gRPC."""
