// Package ledger keeps what virtual servers have counted over all of their lives: a
// network namespace's counters begin at zero with it, and an interface's with the
// interface. A life is one namespace (stats.Sample.Life).
//
// A total is what former lives and interfaces have counted, the base, and the last
// reading of the present one. Three moments write: before a virtual server is put on
// the network ([Book.Opening]), when its links are down and not yet deleted, so that
// nothing can be counted any more ([Book.Leaving], [Book.Closing]), and every now and then
// ([Book.Checkpoint]). A life, or an interface, that ends without having been closed
// is a gap, which is told: what it counted after its last reading is missing. But for
// interfaces whose end somebody has heard of from the kernel ([Book.Ended]).
//
// A virtual server's account is a file of its own, and the readings that checkpoints
// take are one file for all, so that one write does for any number of virtual
// servers. A reading counts only with the account that it was made for: both have
// its token, which each writing of an account makes anew. Whoever dies between any
// two writes leaves one or the other, never both. All of them are made under one
// lock, and counters are read under it.
//
// It does not know which virtual servers there are, and reads no counters itself: it
// is told, and given what reads.
//
// Contract: what is told as kept is on the disk, was counted once, and never goes back
// but by Reset, or when the file itself is lost or spoiled, which makes a new epoch.
package ledger
