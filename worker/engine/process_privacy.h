// What other processes of the same user may see of a rank.
#pragma once

namespace lasp::worker {

// From here on no process without CAP_SYS_PTRACE can trace this one, nor read its memory, its
// environment, its maps or its open files through /proc, and it leaves no core. To be called first
// of all: exec takes it back. Cannot fail.
//
// GPU ranks need none of it from one another: NCCL passes the file descriptors of device memory
// over Unix sockets (SCM_RIGHTS), not by pidfd_getfd, which asks for the right to trace, and maps
// host memory through files of /dev/shm, not by process_vm_readv; who opens a CUDA IPC handle is
// judged by NVIDIA's driver, which asks for the same user. What a process reads of itself in /proc
// stays readable.
void KeepProcessPrivate();

}  // namespace lasp::worker
