#include "proto/rpc/version.h"

namespace lasp {

const char* Version() { return LASP_VERSION; }

const char* Revision() { return LASP_REVISION; }

}  // namespace lasp
