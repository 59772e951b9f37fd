//! Towpath: offload.
