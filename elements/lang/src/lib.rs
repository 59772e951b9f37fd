//! Towpath: lang.
