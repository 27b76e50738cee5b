// Opens files beneath a folder and never outside of it, whoever changes links or names meanwhile.
#pragma once

#include <string>

namespace lasp {

// Opens `relative` for reading beneath the folder `root_fd`; -1 with errno where it cannot. The
// kernel walks the path as a whole (openat2): what leaves the folder, by `..`, an absolute link or
// a link that a rename puts there during the walk, is EXDEV, and a link of /proc to an open file or
// a process's root is ELOOP. Other links that stay beneath are followed. Does not wait for the
// writer of a FIFO, nor for the holder of a lease.
//
// Where there is no openat2 (Linux before 5.6, gVisor, sandboxes that refuse calls they do not
// know), it goes one component at a time and follows no link at all.
int OpenBeneath(int root_fd, const std::string& relative);

}  // namespace lasp
