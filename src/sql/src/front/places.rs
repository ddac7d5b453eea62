//! Places for queries that run at the same time on one instance. Who finds none waits for one.
//!
//! Only queries take places, never the fragments that they run at other instances: a query that holds its place while it
//! waits for another instance can not keep that instance from answering.

use model::{Code, Error, Result};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// A bounded number of places, which may change at any time.
#[derive(Debug)]
pub struct Places {
    count: Mutex<Count>,
    freed: Notify,
}

#[derive(Debug)]
struct Count {
    taken: usize,
    max: usize,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    places: &'a Places,
}

impl Places {
    pub fn new(max: usize) -> Self {
        Self { count: Mutex::new(Count { taken: 0, max }), freed: Notify::new() }
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        // Two numbers that are always whole.
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how many there are. Queries that run already go on.
    pub fn resize(&self, max: usize) {
        self.count().max = max;
        self.freed.notify_waiters();
    }

    fn try_take(&self) -> Option<Place<'_>> {
        let mut count = self.count();
        (count.taken < count.max).then(|| {
            count.taken += 1;
            Place { places: self }
        })
    }

    /// Waits for a place.
    ///
    /// Errors: `LimitExceeded` when none is free by the deadline.
    pub async fn take(&self, deadline: Instant) -> Result<Place<'_>> {
        loop {
            let mut freed = pin!(self.freed.notified());
            // From here on a place that is freed is not missed.
            freed.as_mut().enable();
            if let Some(place) = self.try_take() {
                return Ok(place);
            }
            if tokio::time::timeout_at(deadline.into(), freed).await.is_err() {
                let max = self.count().max;
                let message = format!("{max} queries ran on this instance all the while that this one may take");
                return Err(Error::new(Code::LimitExceeded, message).with_hint(
                    "ask another instance, give the query more time, or raise the setting sql_concurrent_max",
                ));
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.places.count().taken -= 1;
        self.places.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::time::Duration;

    fn run(test: impl Future<Output = ()>) {
        crate::engine::runtime(1).unwrap().block_on(test);
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn who_finds_no_place_waits_for_one() {
        run(async {
            let places = Places::new(1);
            let first = places.take(soon()).await.unwrap();
            let mut second = Box::pin(places.take(soon()));
            assert!(second.as_mut().now_or_never().is_none());
            drop(first);
            drop(second.await.unwrap());
            assert_eq!(places.count().taken, 0);
        });
    }

    #[test]
    fn who_gives_up_gives_the_turn_on() {
        run(async {
            let places = Places::new(1);
            let first = places.take(soon()).await.unwrap();
            let mut gives_up = Box::pin(places.take(soon()));
            let mut waits = Box::pin(places.take(soon()));
            assert!(gives_up.as_mut().now_or_never().is_none());
            assert!(waits.as_mut().now_or_never().is_none());
            drop(first);
            drop(gives_up);
            waits.await.unwrap();
        });
    }

    #[test]
    fn the_deadline_says_that_all_places_were_taken() {
        run(async {
            let places = Places::new(1);
            let _first = places.take(soon()).await.unwrap();
            let error = places.take(Instant::now()).await.unwrap_err();
            assert_eq!(error.code, Code::LimitExceeded, "{error}");
        });
    }

    #[test]
    fn more_places_let_those_in_who_wait() {
        run(async {
            let places = Places::new(1);
            let first = places.take(soon()).await.unwrap();
            let mut second = Box::pin(places.take(soon()));
            assert!(second.as_mut().now_or_never().is_none());
            places.resize(2);
            let second = second.await.unwrap();
            places.resize(1);
            drop(second);
            assert!(places.try_take().is_none(), "the first one holds the only place that is left");
            drop(first);
            assert!(places.try_take().is_some());
        });
    }
}
