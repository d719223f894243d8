//! The embedded serverless platform: OpenWhisk's REST API over local process sandboxes.
