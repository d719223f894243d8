//! The platform with real child processes, over its real API.

mod api;
mod outcomes;
mod processes;
mod world;
