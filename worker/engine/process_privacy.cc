#include "worker/engine/process_privacy.h"

#include <sys/prctl.h>

namespace lasp::worker {

void KeepProcessPrivate() { prctl(PR_SET_DUMPABLE, 0); }

}  // namespace lasp::worker
