//! Evidence, claims, appraisal and RA-TLS (RFC 9334 roles); sans-IO.
