//! The bounded wait for an endpoint: fair between users, first in first out for each of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use protocol::PrincipalId;

use super::{EndpointId, ModelKey, Request, Ticket};

/// Place in the order of service: the user's turn, then the order of arrival.
pub(super) type Turn = (u64, Ticket);

/// A request that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) request: Request,
    /// The endpoint that the policy hopes to give it.
    pub(super) on: Option<EndpointId>,
    /// When it must be given up.
    pub(super) expires: Option<Duration>,
}

#[derive(Debug, Default)]
struct UserTurns {
    waiting: usize,
    last_turn: u64,
}

/// Why a request may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Queue,
    User,
}

/// Each user takes turns with the others (start-time fair queueing with equal weights): somebody
/// who sends a thousand requests at once delays another user's next request by one of them.
#[derive(Debug)]
pub(super) struct Queue {
    by_model: HashMap<ModelKey, BTreeMap<Turn, Waiting>>,
    /// The oldest turn of each model.
    heads: BTreeSet<(Turn, ModelKey)>,
    tickets: HashMap<Ticket, (Turn, ModelKey)>,
    users: HashMap<PrincipalId, UserTurns>,
    expiries: BTreeSet<(Duration, Ticket)>,
    /// The turn being served.
    turn: u64,
    max: usize,
    max_per_user: usize,
}

impl Queue {
    pub(super) fn new(max: usize, max_per_user: usize) -> Self {
        Self {
            by_model: HashMap::new(),
            heads: BTreeSet::new(),
            tickets: HashMap::new(),
            users: HashMap::new(),
            expiries: BTreeSet::new(),
            turn: 0,
            max,
            max_per_user,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Whether one more request of this user may wait.
    pub(super) fn check_room(&self, user: &PrincipalId) -> Result<(), Full> {
        if self.tickets.len() >= self.max {
            return Err(Full::Queue);
        }
        match self.users.get(user) {
            Some(turns) if turns.waiting >= self.max_per_user => Err(Full::User),
            _ => Ok(()),
        }
    }

    /// Adds a request; ask [`Queue::check_room`] first.
    pub(super) fn push(&mut self, ticket: Ticket, waiting: Waiting) {
        let user = self.users.entry(waiting.request.user).or_default();
        let number = if user.waiting == 0 {
            self.turn
        } else {
            user.last_turn + 1
        };
        user.waiting += 1;
        user.last_turn = number;
        let (turn, model) = ((number, ticket), waiting.request.model);
        if let Some(expires) = waiting.expires {
            self.expiries.insert((expires, ticket));
        }
        self.tickets.insert(ticket, (turn, model));
        let line = self.by_model.entry(model).or_default();
        if let Some((head, _)) = line.first_key_value().filter(|(head, _)| **head > turn) {
            self.heads.remove(&(*head, model));
            self.heads.insert((turn, model));
        } else if line.is_empty() {
            self.heads.insert((turn, model));
        }
        line.insert(turn, waiting);
    }

    /// Takes a request out, because it is served, given up or withdrawn.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiting> {
        let (turn, model) = self.tickets.remove(&ticket)?;
        let line = self.by_model.get_mut(&model)?;
        let waiting = line.remove(&turn)?;
        if self.heads.remove(&(turn, model))
            && let Some((next, _)) = line.first_key_value()
        {
            self.heads.insert((*next, model));
        }
        if line.is_empty() {
            self.by_model.remove(&model);
        }
        if let Some(expires) = waiting.expires {
            self.expiries.remove(&(expires, ticket));
        }
        if let Some(user) = self.users.get_mut(&waiting.request.user) {
            user.waiting -= 1;
            if user.waiting == 0 {
                self.users.remove(&waiting.request.user);
            }
        }
        Some(waiting)
    }

    /// Takes out the oldest request for this model, to serve it.
    pub(super) fn pop(&mut self, model: ModelKey) -> Option<(Ticket, Waiting)> {
        let (turn, _) = self.by_model.get(&model)?.first_key_value()?;
        let turn = *turn;
        self.serve(turn);
        self.remove(turn.1).map(|waiting| (turn.1, waiting))
    }

    /// This turn is being served: users who come later take their turn after it.
    pub(super) fn serve(&mut self, turn: Turn) {
        self.turn = self.turn.max(turn.0 + 1);
    }

    /// The oldest request of some model, after `after` in the order of service.
    pub(super) fn next_head(&self, after: Option<(Turn, ModelKey)>) -> Option<(Turn, ModelKey)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.heads.range((from, Unbounded)).next().copied()
    }

    pub(super) fn waiting_mut(&mut self, turn: Turn, model: ModelKey) -> Option<&mut Waiting> {
        self.by_model.get_mut(&model)?.get_mut(&turn)
    }

    /// Requests waiting for this model.
    pub(super) fn waiting_for(&self, model: ModelKey) -> usize {
        self.by_model.get(&model).map_or(0, BTreeMap::len)
    }

    /// The next time that somebody must be given up.
    pub(super) fn next_expiry(&self) -> Option<(Duration, Ticket)> {
        self.expiries.first().copied()
    }

    pub(super) fn contains(&self, ticket: Ticket) -> bool {
        self.tickets.contains_key(&ticket)
    }
}
