//! SeMIRT: serves many encrypted inference requests at once inside a TEE.
