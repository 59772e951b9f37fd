//! Towpath: io.
