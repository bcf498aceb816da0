package wal

// Running says which transactions were under way at a moment: the server logs it with every checkpoint
// and every 15 seconds.
type Running struct {
	Next     uint32   // every transaction that begins later has this number or a higher one
	Oldest   uint32   // none below is under way
	Xids     []uint32 // under way, with their subtransactions unless Overflow
	Overflow bool
}

// ParseRunning reads a list of running transactions; ok is false for every other record. The error is a
// *DamageError. Source: standbydefs.h.
func ParseRunning(r *Record) (v Running, ok bool, err error) {
	const running = 0x10
	if r.Rmgr != RmgrStandby || r.Op() != running {
		return v, false, nil
	}
	f := fields{b: r.MainData}
	n, subs := f.u32(), f.u32()
	v.Overflow = f.u8() != 0
	f.next(3)
	v.Next, v.Oldest = f.u32(), f.u32()
	f.next(4)
	if int64(n)+int64(subs) > int64(len(f.b)/4) {
		return v, true, damage(r.LSN, "list of running transactions is too short")
	}
	v.Xids = f.xids(int(n + subs))
	return v, true, finish(r, &f, "list of running transactions")
}
