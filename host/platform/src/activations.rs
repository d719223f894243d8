//! Activation records: kept in memory, newest first, bounded in number and in bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::openwhisk::ActivationSummary;

use crate::json::Json;

/// A record whose result is kept as the sandbox wrote it.
pub(crate) type Activation = protocol::openwhisk::Activation<Json>;

/// Which records a list shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Action name, or `package/name`.
    pub(crate) name: Option<String>,
    /// Milliseconds since the epoch, inclusive both.
    pub(crate) since: Option<u64>,
    pub(crate) upto: Option<u64>,
}

/// One record. Its logs come after its answer, so they are apart.
#[derive(Debug)]
struct Entry {
    record: Arc<Activation>,
    logs: Vec<String>,
    bytes: usize,
}

/// Sorts by start, then by arrival.
type Key = (u64, u64);

#[derive(Debug, Default)]
struct Shelf {
    entries: BTreeMap<Key, Entry>,
    by_id: HashMap<String, Key>,
    arrivals: u64,
    bytes: usize,
}

/// All records that are still kept.
#[derive(Debug)]
pub(crate) struct Activations {
    max_count: usize,
    max_bytes: usize,
    shelf: Mutex<Shelf>,
}

impl Activations {
    /// Keeps at most `max_count` records of at most `max_bytes` together; the newest always.
    #[must_use]
    pub(crate) fn new(max_count: usize, max_bytes: usize) -> Self {
        Self {
            max_count,
            max_bytes,
            shelf: Mutex::default(),
        }
    }

    /// Adds a record; the oldest leave if there is no room.
    pub(crate) fn add(&self, record: Arc<Activation>) {
        let (logs, bytes) = (
            Vec::new(),
            record.response.result.text().len() + ENTRY_BYTES,
        );
        let mut shelf = self.lock();
        let key = (record.start, shelf.arrivals);
        shelf.arrivals += 1;
        shelf.by_id.insert(record.activation_id.clone(), key);
        shelf.bytes += bytes;
        shelf.entries.insert(
            key,
            Entry {
                record,
                logs,
                bytes,
            },
        );
        self.trim(&mut shelf);
    }

    /// Adds log lines to a record, if it is still there.
    pub(crate) fn add_logs(&self, id: &str, logs: Vec<String>) {
        let mut shelf = self.lock();
        let Some(key) = shelf.by_id.get(id).copied() else {
            return;
        };
        let more = log_bytes(&logs);
        if let Some(entry) = shelf.entries.get_mut(&key) {
            entry.logs.extend(logs);
            entry.bytes += more;
            shelf.bytes += more;
        }
        self.trim(&mut shelf);
    }

    /// One record of a namespace, with its logs.
    #[must_use]
    pub(crate) fn find(&self, namespace: &str, id: &str) -> Option<Activation> {
        let shelf = self.lock();
        let entry = shelf.entries.get(shelf.by_id.get(id)?)?;
        (entry.record.namespace == namespace).then(|| full(entry))
    }

    /// Records without response and logs, newest first.
    #[must_use]
    pub(crate) fn list(
        &self,
        namespace: &str,
        filter: &Filter,
        skip: usize,
        limit: usize,
    ) -> Vec<ActivationSummary> {
        self.select(namespace, filter, skip, limit, summary)
    }

    /// Whole records, newest first.
    #[must_use]
    pub(crate) fn list_whole(
        &self,
        namespace: &str,
        filter: &Filter,
        skip: usize,
        limit: usize,
    ) -> Vec<Activation> {
        self.select(namespace, filter, skip, limit, full)
    }

    /// How many records there are after the first `skip`.
    #[must_use]
    pub(crate) fn count(&self, namespace: &str, filter: &Filter, skip: usize) -> usize {
        self.select(namespace, filter, skip, usize::MAX, |_| ())
            .len()
    }

    fn select<T>(
        &self,
        namespace: &str,
        filter: &Filter,
        skip: usize,
        limit: usize,
        project: impl Fn(&Entry) -> T,
    ) -> Vec<T> {
        let (since, upto) = (filter.since.unwrap_or(0), filter.upto.unwrap_or(u64::MAX));
        if since > upto {
            return Vec::new();
        }
        let shelf = self.lock();
        let window = shelf.entries.range((since, 0)..=(upto, u64::MAX)).rev();
        let wanted = window.map(|(_, entry)| entry).filter(|entry| {
            let record = &entry.record;
            let named = filter.name.as_ref().is_none_or(|name| *name == record.name);
            record.namespace == namespace && named
        });
        wanted.skip(skip).take(limit).map(project).collect()
    }

    fn trim(&self, shelf: &mut Shelf) {
        while shelf.entries.len() > self.max_count
            || (shelf.bytes > self.max_bytes && shelf.entries.len() > 1)
        {
            let Some((_, entry)) = shelf.entries.pop_first() else {
                return;
            };
            shelf.bytes -= entry.bytes;
            shelf.by_id.remove(&entry.record.activation_id);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a record takes beside its result and logs, roughly, in bytes.
const ENTRY_BYTES: usize = 1024;

fn log_bytes(logs: &[String]) -> usize {
    logs.iter()
        .map(|line| line.len() + size_of::<String>())
        .sum()
}

fn full(entry: &Entry) -> Activation {
    let mut record = Activation::clone(&entry.record);
    record.logs.extend(entry.logs.iter().cloned());
    record
}

fn summary(entry: &Entry) -> ActivationSummary {
    let record = &entry.record;
    ActivationSummary {
        namespace: record.namespace.clone(),
        name: record.name.clone(),
        version: record.version.clone(),
        activation_id: record.activation_id.clone(),
        start: record.start,
        end: record.end,
        duration: record.duration,
        status_code: record.response.outcome().code(),
        publish: record.publish,
        annotations: record.annotations.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::openwhisk::{ActivationResponse, Outcome};

    fn record(id: &str, name: &str, start: u64) -> Arc<Activation> {
        Arc::new(Activation {
            namespace: "guest".into(),
            name: name.into(),
            version: "0.0.1".into(),
            subject: "guest".into(),
            activation_id: id.into(),
            start,
            end: start + 1,
            duration: 1,
            publish: false,
            annotations: vec![],
            logs: vec![],
            response: ActivationResponse::new(Outcome::Success, Json::empty(), Some(2)),
        })
    }

    fn ids(list: &[ActivationSummary]) -> Vec<&str> {
        list.iter().map(|a| a.activation_id.as_str()).collect()
    }

    #[test]
    fn another_namespace_sees_nothing() {
        let shelf = Activations::new(9, 1 << 20);
        shelf.add(record("1", "a", 1));
        assert_eq!(shelf.find("other", "1"), None);
        assert!(shelf.list("other", &Filter::default(), 0, 9).is_empty());
        assert!(shelf.find("guest", "1").is_some());
    }

    #[test]
    fn the_list_is_newest_first_whatever_the_order_of_arrival() {
        let shelf = Activations::new(9, 1 << 20);
        for (id, name, start) in [("1", "a", 5), ("2", "b", 9), ("3", "a", 7), ("4", "a", 7)] {
            shelf.add(record(id, name, start));
        }
        let all = Filter::default();
        assert_eq!(ids(&shelf.list("guest", &all, 0, 9)), ["2", "4", "3", "1"]);
        assert_eq!(ids(&shelf.list("guest", &all, 1, 2)), ["4", "3"]);
        let named = Filter {
            name: Some("a".into()),
            ..Filter::default()
        };
        assert_eq!(ids(&shelf.list("guest", &named, 0, 9)), ["4", "3", "1"]);
        let window = Filter {
            since: Some(6),
            upto: Some(7),
            ..Filter::default()
        };
        assert_eq!(ids(&shelf.list("guest", &window, 0, 9)), ["4", "3"]);
        assert_eq!(shelf.count("guest", &all, 1), 3);
        let empty = Filter {
            since: Some(8),
            upto: Some(7),
            ..Filter::default()
        };
        assert_eq!(shelf.count("guest", &empty, 0), 0);
    }

    #[test]
    fn the_oldest_leave_when_there_are_too_many_or_they_are_too_large() {
        let shelf = Activations::new(2, 10 * ENTRY_BYTES);
        for i in 0..3_u64 {
            shelf.add(record(&i.to_string(), "a", i));
        }
        assert_eq!(shelf.find("guest", "0"), None);
        assert!(shelf.find("guest", "1").is_some());
        shelf.add_logs("2", vec!["x".repeat(10 * ENTRY_BYTES)]);
        assert_eq!(shelf.find("guest", "1"), None);
        assert_eq!(shelf.find("guest", "2").unwrap().logs.len(), 1);
        shelf.add_logs("1", vec!["late".into()]);
    }
}
