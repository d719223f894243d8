//! The platform with real child processes, over its real API.

#[cfg(test)]
mod api;
#[cfg(test)]
mod outcomes;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod world;
