//! For tests only: a TEE in software, and the suite that every attester and verifier must pass.
