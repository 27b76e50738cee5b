// Clang's thread-safety attributes under short names; empty for other compilers.
#pragma once

// Debian's Abseil still defines three of these names itself: take them over after it has.
#include "absl/base/thread_annotations.h"
#undef GUARDED_BY
#undef PT_GUARDED_BY
#undef NO_THREAD_SAFETY_ANALYSIS

#if defined(__clang__)
#define LASP_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define LASP_THREAD_ATTRIBUTE(x)
#endif

#define LASP_CAPABILITY(x) LASP_THREAD_ATTRIBUTE(capability(x))
#define LASP_SCOPED_CAPABILITY LASP_THREAD_ATTRIBUTE(scoped_lockable)
#define GUARDED_BY(x) LASP_THREAD_ATTRIBUTE(guarded_by(x))
#define PT_GUARDED_BY(x) LASP_THREAD_ATTRIBUTE(pt_guarded_by(x))
#define REQUIRES_LOCK(...) LASP_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define ACQUIRE_LOCK(...) LASP_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define RELEASE_LOCK(...) LASP_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
#define EXCLUDES_LOCK(...) LASP_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS LASP_THREAD_ATTRIBUTE(no_thread_safety_analysis)
