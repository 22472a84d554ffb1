//! What the machine did beside the load.

pub mod proc_io;
