//! Real devices through rdma-sys.
