//! Buckets of the three clouds, with their standard configuration.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use super::{ModelStore, OpenStoreError};

macro_rules! build {
    ($builder:ty, $scheme:expr, $url:expr, $options:expr) => {{
        let mut builder = <$builder>::from_env()
            .with_url($url.as_str())
            .with_retry(retry());
        for (name, value) in $options {
            let key = name
                .to_ascii_lowercase()
                .parse()
                .map_err(|_| OpenStoreError::Option {
                    scheme: $scheme.into(),
                    name: name.clone(),
                })?;
            builder = builder.with_config(key, value);
        }
        builder
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
    }};
}

/// A request of a user waits for the artifact: give up, and say so, before the caller does.
fn retry() -> RetryConfig {
    RetryConfig {
        max_retries: 3,
        retry_timeout: Duration::from_secs(20),
        ..Default::default()
    }
}

pub(super) fn open(
    scheme: &str,
    url: &Url,
    options: &[(String, String)],
) -> Result<ModelStore, OpenStoreError> {
    let failed = |source| OpenStoreError::Cloud {
        url: url.to_string(),
        source: Box::new(source),
    };
    let store = match scheme {
        "s3" => build!(AmazonS3Builder, scheme, url, options),
        "gs" => build!(GoogleCloudStorageBuilder, scheme, url, options),
        "az" => build!(MicrosoftAzureBuilder, scheme, url, options),
        _ => {
            return Err(OpenStoreError::Scheme {
                scheme: scheme.into(),
            });
        }
    }
    .map_err(failed)?;
    let (_, path) = ObjectStoreScheme::parse(url).map_err(|source| failed(source.into()))?;
    let prefix = ObjectPath::parse(path).map_err(|source| failed(source.into()))?;
    Ok(ModelStore { store, prefix })
}
