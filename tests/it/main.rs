//! End-to-end tests: the program, run as a user runs it.

mod external;
mod faults;
mod layering;
mod plan_errors;
mod real_stack;
mod run_sim;
mod secrets;
mod stopping;
mod support;
