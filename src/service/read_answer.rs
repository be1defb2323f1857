//! Reading the provider's answer behind a verdict, which is recorded.

use super::Service;
use crate::domain::VerificationId;
use crate::store::{AnswerRead, Reader, StoreError};

impl Service {
    /// The answer behind the current verdict, or behind that of `revision`. Once it is returned, the read is recorded.
    pub async fn read_answer(
        &self,
        id: VerificationId,
        revision: Option<i32>,
        reader: &Reader<'_>,
    ) -> Result<AnswerRead, StoreError> {
        self.store.read_answer(id, revision, reader, self.clock.now()).await
    }
}
