/// Why something could not be done with a session. What a model says no to is not here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// There is none with that id, or it is another tenant's.
    #[error("there is no session `{id}`; it was deleted, or nobody used it for longer than its `ttl_ms`")]
    Unknown {
        /// As it was asked for, shortened.
        id: String,
    },
    /// A session has one turn at a time.
    #[error("session `{id}` is in the middle of a turn; wait for its end, or fork the session and ask the fork")]
    Busy {
        /// The session.
        id: String,
    },
    /// Its tokens are used up.
    #[error("the session has used {spent} of its {budget} tokens{}; create another one with a larger `token_budget`", question(*n_prompt))]
    BudgetExhausted {
        /// Tokens it may use.
        budget: u64,
        /// Tokens that it used.
        spent: u64,
        /// Tokens of what is asked now, with all that was said before; 0 where they were not counted.
        n_prompt: u64,
    },
    /// One conversation is too long to be kept.
    #[error(
        "the session would have {n_messages} messages, and `sessions.max-messages` is {limit}; fork it at an earlier message, or create it with \
         `when_full: drop_oldest`"
    )]
    Full {
        /// Messages it would have.
        n_messages: usize,
        /// Messages it may have.
        limit: usize,
    },
    /// There is no place for another one.
    #[error("{whose} has {n} of {limit} sessions; delete some, or raise `{key}`")]
    TooMany {
        /// `the host` or `the tenant`.
        whose: &'static str,
        /// Sessions now.
        n: usize,
        /// Sessions at most.
        limit: usize,
        /// The key of the configuration that says so.
        key: &'static str,
    },
    /// All conversations together are too long to be kept.
    #[error("the sessions of the host would have {n_bytes} bytes, and `sessions.max-bytes` is {limit}; delete some, or raise it")]
    TooLarge {
        /// Bytes there would be.
        n_bytes: u64,
        /// Bytes there may be.
        limit: u64,
    },
    /// The request makes no sense for this session.
    #[error("{0}")]
    Invalid(String),
    /// It could not be written down, so it did not happen.
    #[error("the session could not be kept on disk: {0}")]
    NotKept(String),
}

fn question(n_prompt: u64) -> String {
    if n_prompt == 0 { String::new() } else { format!(", and this question has {n_prompt} with what was said before") }
}

impl SessionError {
    /// A stable upper-case name for clients and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "UNKNOWN_SESSION",
            Self::Busy { .. } => "SESSION_BUSY",
            Self::BudgetExhausted { .. } => "SESSION_BUDGET_EXHAUSTED",
            Self::Full { .. } => "SESSION_FULL",
            Self::TooMany { .. } | Self::TooLarge { .. } => "TOO_MANY_SESSIONS",
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::NotKept(_) => "BACKEND_FAILED",
        }
    }
}
