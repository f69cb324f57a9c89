//! Answers of the zone as bytes: the same question gets the same answer until the zone changes.

use std::collections::HashMap;

/// Most answers remembered; with more questions than that all are forgotten, and the common ones are soon known again.
const ANSWERS_MAX: usize = 16_384;
/// Longer questions are answered anew each time: a name has at most 255 bytes, and its header few more.
const QUESTION_BYTES_MAX: usize = 320;
/// A message begins with the number by which its sender knows the answer.
const ID_BYTES: usize = 2;

/// The answers of one version of the zone.
#[derive(Default)]
pub struct Remembered {
    version: u64,
    /// By the whole question without its number, so that nothing that a client asks for is overlooked.
    answers: HashMap<Box<[u8]>, Box<[u8]>>,
}

impl Remembered {
    /// The answer to a question, if it was answered in this version of the zone before.
    pub fn answer(&mut self, version: u64, question: &[u8]) -> Option<&[u8]> {
        if self.version != version {
            self.answers.clear();
            self.version = version;
        }
        let answer = self.answers.get_mut(question.get(ID_BYTES..)?)?;
        answer.get_mut(..ID_BYTES)?.copy_from_slice(&question[..ID_BYTES]);
        Some(answer)
    }

    /// Remembers the answer to a question that [`Remembered::answer`] did not know. It is of that version or a newer one,
    /// which makes all be forgotten before it is given to anybody.
    pub fn keep(&mut self, question: &[u8], answer: &[u8]) {
        if question.len() > QUESTION_BYTES_MAX {
            return;
        }
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.clear();
        }
        if let Some(asked) = question.get(ID_BYTES..) {
            self.answers.insert(asked.into(), answer.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_its_question_and_its_version_only() {
        let mut remembered = Remembered::default();
        assert_eq!(remembered.answer(1, b"01who"), None);
        remembered.keep(b"01who", b"01me");
        assert_eq!(remembered.answer(1, b"23who"), Some(&b"23me"[..]), "with the number of the new question");
        assert_eq!(remembered.answer(1, b"01Who"), None);
        assert_eq!(remembered.answer(2, b"01who"), None);
        assert_eq!(remembered.answer(1, b"01who"), None, "it was forgotten");
        assert_eq!(remembered.answer(1, b"0"), None);
        remembered.keep(&[b'x'; QUESTION_BYTES_MAX + 1], b"01me");
        assert!(remembered.answers.is_empty());
        for number in 0..=ANSWERS_MAX {
            remembered.keep(format!("01{number}").as_bytes(), b"01me");
        }
        assert_eq!(remembered.answers.len(), 1);
    }
}
