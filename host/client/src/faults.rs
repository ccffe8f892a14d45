//! Trouble made on purpose.

use llambo_proto::v1::{self, faults_client::FaultsClient};

use crate::{Client, Error, credentials::Transport};

impl Client {
    /// Makes nodes slow, break off, trap or fall silent, from now on. Answers with what it is taken back by.
    pub async fn inject_fault(&self, fault: v1::Fault) -> Result<u64, Error> {
        Ok(self.done(self.troubled().inject_fault(v1::InjectFaultRequest { fault: Some(fault) }).await)?.number)
    }

    /// The faults that are active.
    pub async fn faults(&self) -> Result<Vec<v1::ActiveFault>, Error> {
        Ok(self.done(self.troubled().list_faults(v1::ListFaultsRequest {}).await)?.faults)
    }

    /// Takes faults back by their numbers, or all where there are none. Answers how many of them were active.
    pub async fn clear_faults(&self, numbers: Vec<u64>) -> Result<u32, Error> {
        Ok(self.done(self.troubled().clear_faults(v1::ClearFaultsRequest { numbers }).await)?.cleared)
    }

    fn troubled(&self) -> FaultsClient<Transport> {
        FaultsClient::new(self.channel())
    }
}
