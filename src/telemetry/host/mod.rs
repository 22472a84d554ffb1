//! What this machine and the server's processes do, from `/proc`, `/sys` and cgroup v2.

pub(crate) mod cgroup;
pub(crate) mod cpu;
pub(crate) mod group;
pub(crate) mod io;
pub(crate) mod proc_file;
pub(crate) mod route;
pub(crate) mod tcp;
