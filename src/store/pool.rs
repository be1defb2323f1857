//! The ways to the database: the pool that statements take, and one for what needs a session.
//!
//! Between us and Postgres there may be a pooler that lends a server's session for one transaction at a time, such as
//! pgbouncer with `pool_mode = transaction`. Then nothing may outlive a transaction: no `SET`, no named statement, no
//! lock of a session, no LISTEN. So with such a pooler every statement runs in an explicit transaction, unnamed and
//! parsed anew, which every kind and age of pooler can carry. The types here see to that; who writes a statement need
//! not know.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use sqlx::error::BoxDynError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Connection, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr};

/// How long a request waits for a connection before it is told that the database does not answer.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that was idle for so long is tried before it is used: the server may have been restarted since. Busy
/// ones are not, which spares a round trip for each statement.
const TRY_AFTER: Duration = Duration::from_millis(250);

/// Every statement here has its index, also where a table is empty when the statement is first planned: a plan made
/// then would read the whole table until the next ANALYZE, when it may hold all of a morning's work. (Look-ups that
/// could be turned into joins are kept apart by `LIMIT 1` for the same reason, and what joins a list of keys says them a
/// second time, as `= ANY`.) What a scan is then thought to cost must not start the compiler. And since the plan is the
/// same whatever the values are, it is made once: planning a statement again would cost several times its execution.
pub const SESSION: &str = "SET enable_seqscan = off; SET jit = off; SET plan_cache_mode = force_generic_plan";

/// The same where a session is lent for one transaction. What is parsed anew is planned anew, so its values may count.
const BEGIN: &str = "BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL jit = off";

/// How many connections for what needs a session: one listens, one migrates.
const SESSIONS: u32 = 2;

/// How the database is reached.
#[derive(Clone, Debug)]
pub struct Access {
    pub options: PgConnectOptions,
    /// Leads past the pooler to the same database.
    pub listen: Option<PgConnectOptions>,
    /// `options` leads to a pooler that lends sessions for one transaction.
    pub transaction_pooling: bool,
}

impl From<PgConnectOptions> for Access {
    fn from(options: PgConnectOptions) -> Self {
        Self { options, listen: None, transaction_pooling: false }
    }
}

/// The way of all statements. As an executor it runs each statement by itself.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    connections: PgPool,
    /// Sessions are lent for one transaction.
    is_lent: bool,
}

/// A connection, or the one of a [`Transaction`].
pub(super) struct Session {
    held: Held,
    is_lent: bool,
}

enum Held {
    Connection(PoolConnection<Postgres>),
    Transaction(sqlx::Transaction<'static, Postgres>),
}

/// Rolled back when dropped without [`Transaction::commit`].
#[derive(Debug)]
pub(super) struct Transaction(Session);

/// The pool of statements, and the one of sessions where there is one. Both connect at first use.
pub(super) fn connect(access: Access, max_connections: u32) -> (Pool, Option<PgPool>) {
    let Access { options, listen, transaction_pooling: is_lent } = access;
    // Poolers refuse settings at the start that they do not know. Numbers travel in binary, so this one changes nothing.
    let options = if is_lent { options.extra_float_digits(None) } else { options };
    let connections = PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, state| {
            Box::pin(async move {
                if state.idle_for >= TRY_AFTER {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if !is_lent {
                    connection.execute(SESSION).await?;
                }
                Ok(())
            })
        })
        .connect_lazy_with(options);
    let sessions = match listen {
        Some(listen) => Some(
            PgPoolOptions::new().max_connections(SESSIONS).acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(listen),
        ),
        None if is_lent => None,
        None => Some(connections.clone()),
    };
    (Pool { connections, is_lent }, sessions)
}

impl Pool {
    /// A connection for several statements, each a transaction of its own.
    pub(super) async fn acquire(&self) -> Result<Session, sqlx::Error> {
        Ok(Session { held: Held::Connection(self.connections.acquire().await?), is_lent: self.is_lent })
    }

    pub(super) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        let begun =
            if self.is_lent { self.connections.begin_with(BEGIN).await? } else { self.connections.begin().await? };
        Ok(Transaction(Session { held: Held::Transaction(begun), is_lent: self.is_lent }))
    }

    /// How many connections are busy, and how many more may be at once.
    pub(super) fn in_use(&self) -> (u32, u32) {
        let idle = u32::try_from(self.connections.num_idle()).unwrap_or(0);
        let busy = self.connections.size().saturating_sub(idle);
        (busy, self.connections.options().get_max_connections().saturating_sub(busy))
    }

    pub(super) async fn close(&self) {
        self.connections.close().await;
    }
}

impl Session {
    fn connection(&mut self) -> &mut PgConnection {
        match &mut self.held {
            Held::Connection(connection) => connection,
            Held::Transaction(transaction) => transaction,
        }
    }
}

impl Transaction {
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self.0.held {
            Held::Transaction(transaction) => transaction.commit().await,
            // Made by `Pool::begin` alone.
            Held::Connection(_) => Err(sqlx::Error::BeginFailed),
        }
    }
}

impl Deref for Transaction {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.0
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("is_lent", &self.is_lent).finish_non_exhaustive()
    }
}

/// A statement that leaves nothing behind in the session.
struct Unnamed<E>(E);

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Unnamed<E> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.0.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        false
    }
}

type Step = Either<PgQueryResult, PgRow>;

/// All of a statement in a transaction of its own. It is collected first: a row counts only after the commit.
async fn alone<'q, E: 'q + Execute<'q, Postgres>>(
    connection: &mut PgConnection,
    query: E,
) -> Result<Vec<Step>, sqlx::Error> {
    let mut transaction = connection.begin_with(BEGIN).await?;
    let steps = transaction.fetch_many(Unnamed(query)).try_collect().await?;
    transaction.commit().await?;
    Ok(steps)
}

fn first_row(steps: Vec<Step>) -> Option<PgRow> {
    steps.into_iter().find_map(Either::right)
}

impl<'c> Executor<'c> for &'c mut Session {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.is_lent {
            return self.connection().fetch_many(query);
        }
        match &mut self.held {
            Held::Connection(connection) => {
                alone(connection, query).map_ok(|steps| stream::iter(steps).map(Ok)).try_flatten_stream().boxed()
            }
            Held::Transaction(transaction) => transaction.fetch_many(Unnamed(query)),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.is_lent {
            return self.connection().fetch_optional(query);
        }
        match &mut self.held {
            Held::Connection(connection) => alone(connection, query).map_ok(first_row).boxed(),
            Held::Transaction(transaction) => transaction.fetch_optional(Unnamed(query)),
        }
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        self.connection().prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        self.connection().describe(sql)
    }
}

impl<'c> Executor<'c> for &'c Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.is_lent {
            return self.connections.fetch_many(query);
        }
        async move { alone(&mut *self.connections.acquire().await?, query).await }
            .map_ok(|steps| stream::iter(steps).map(Ok))
            .try_flatten_stream()
            .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.is_lent {
            return self.connections.fetch_optional(query);
        }
        async move { Ok(first_row(alone(&mut *self.connections.acquire().await?, query).await?)) }.boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        self.connections.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        self.connections.describe(sql)
    }
}
