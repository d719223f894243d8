//! Process scaffolding: config files, telemetry, clock, shutdown. No domain types.
