"""Calls a coordinator twenty-five times a second for some seconds, as a user does, and prints what that
took: {"calls", "failed", "codes", "p50_ms", "p99_ms"}. A process of its own, so that nothing else in it waits.

  prober.py STUBS ADDRESS CA_FILE TOKEN SECONDS"""
import json
import os
import sys
import time


def main():
    stubs, address, authority, token, seconds = sys.argv[1:]
    sys.path.insert(0, stubs)
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
    import google
    google.__path__.append(os.path.join(stubs, "google"))  # beside google.protobuf
    import grpc
    from lasp.v1 import server_service_pb2 as info, server_service_pb2_grpc as info_stubs
    from lasp.v1 import training_job_service_pb2 as jobs, training_job_service_pb2_grpc as jobs_stubs
    with open(authority, "rb") as file:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()))
    ask_info = info_stubs.ServerServiceStub(channel).GetServerInfo
    ask_jobs = jobs_stubs.TrainingJobServiceStub(channel).ListTrainingJobs
    metadata = [("authorization", "Bearer " + token)]
    ask_info(info.GetServerInfoRequest(), metadata=metadata, timeout=20)
    took, codes, calls = [], [], 0
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            if calls % 2:
                ask_info(info.GetServerInfoRequest(), metadata=metadata, timeout=20)
            else:
                ask_jobs(jobs.ListTrainingJobsRequest(parent="projects/-"), metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            codes.append(f"{error.code().name}: {error.details()}")
        took.append(time.monotonic() - began)
        calls += 1
        time.sleep(max(0.0, began + 0.04 - time.monotonic()))
    took.sort()
    print(json.dumps({"calls": calls, "failed": len(codes), "codes": sorted(set(codes)), "p50_ms": round(1000 * took[len(took) // 2], 2),
                      "p99_ms": round(1000 * took[min(len(took) - 1, len(took) * 99 // 100)], 2)}))


if __name__ == "__main__":
    main()
