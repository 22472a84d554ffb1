//! What this machine and the server's processes do, from `/proc`, `/sys` and cgroup v2.

pub mod cgroup;
pub mod cpu;
pub mod group;
pub mod io;
pub mod proc_file;
pub mod route;
