//! Sessions that nobody can go on with.

use std::{fs, time::Duration};

use super::{super::collect::is_older, Check, Finding, Repair};
use crate::storage::{Error, IoContext as _, UploadId, fs::folder};

/// Sessions are made in no time; one that is not whole by then never will be.
const MADE: Duration = Duration::from_secs(60);

impl Check<'_> {
    pub(super) fn uploads(&mut self) -> Result<(), Error> {
        let uploads = self.store.layout.uploads();
        for name in folder::entries(&uploads)? {
            let name = name.at("list", &uploads)?;
            match name.parse::<UploadId>() {
                Ok(id) => self.upload(id)?,
                Err(()) => self.foreign(&uploads.join(name)),
            }
        }
        Ok(())
    }

    fn upload(&mut self, id: UploadId) -> Result<(), Error> {
        let folder = self.store.layout.upload(id);
        let is_made = |time: fs::Metadata| time.modified().is_ok_and(|time| is_older(time, MADE));
        if !fs::metadata(&folder).is_ok_and(is_made) {
            return Ok(());
        }
        let Some(_busy) = self.store.busy.try_take(id) else {
            return Ok(());
        };
        self.examine(None, None, |store| {
            if store.is_session(id)? {
                return Ok(Vec::new());
            }
            let what = "This upload is torn: nobody can go on with it.".to_owned();
            Ok(vec![Finding::leftover(folder.clone(), what, Repair::RemoveTree)])
        })
    }
}
