//! Bounds that every reader of hostile bytes applies before it allocates.

/// Longest model name, in bytes.
pub const MODEL_ID_MAX: usize = 64;
/// Largest JSON header of an inference message inside an envelope, in bytes.
pub const OIP_HEADER_MAX: usize = 256 * 1024;
/// Most tensors in one inference message.
pub const TENSORS_MAX: usize = 64;
/// Most dimensions of a tensor.
pub const RANK_MAX: usize = 8;
/// Largest opened (plaintext) request or response, in bytes.
pub const PAYLOAD_MAX: usize = 64 * 1024 * 1024;
/// Largest manifest of a model package, in bytes.
pub const MANIFEST_MAX: usize = 8 * 1024 * 1024;
/// Largest model package (graph and weights), in bytes.
pub const PACKAGE_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Largest body of a KeyService API call, in bytes.
pub const KEYSERVICE_BODY_MAX: usize = 64 * 1024;
/// Longest appraisal policy that a grant or a request key carries, in bytes.
pub const POLICY_MAX: usize = 4096;
/// Largest frame of the attest gate, in bytes: evidence with endorsements fits.
pub const GATE_FRAME_MAX: usize = 128 * 1024;
/// OpenWhisk's limit on an invocation's payload and on its result, in bytes.
pub const OPENWHISK_PAYLOAD_MAX: usize = 1024 * 1024;
