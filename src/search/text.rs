//! Text folding for string search: NFKD, marks dropped, full case fold, extra folds, punctuation to space. Pinned as a scheme version.
