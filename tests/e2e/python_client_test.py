"""Another client: Python stubs made from the protos submit, watch and cancel a job."""
import threading
import unittest
import uuid

from api_stubs import import_stubs
from cluster import LONG, ClusterTest


class PythonClientTest(ClusterTest):
    def setUp(self):
        super().setUp()
        import_stubs(self.folder)

    def test_submit_watch_cancel(self):
        import grpc
        from google.protobuf import json_format
        from lasp.v1 import training_job_pb2, training_job_service_pb2 as api, training_job_service_pb2_grpc as stubs
        self.start_server()
        self.start_worker(slots=2)
        state = training_job_pb2.TrainingJob.State
        with grpc.insecure_channel(self.server.api_address) as channel:
            jobs = stubs.TrainingJobServiceStub(channel)
            spec = {"model": {"architecture": "ARCHITECTURE_TRANSNORMER", "layers": 1, "hidden_size": 16, "heads": 1,
                              "glu_size": 32, "vocab_size": 256},
                    "data": {"train_paths": ["corpus.txt"], "format": "FORMAT_BYTES", "sequence_length": 128},
                    "optimizer": {"learning_rate": 1e-3},
                    "parallelism": {"sequence_parallel": {"size": 2}, "data_parallel": {"size": 1}},
                    "global_batch_size": 1, "max_steps": LONG}
            request = api.CreateTrainingJobRequest(parent="projects/default", training_job_id="python",
                                                   request_id=str(uuid.uuid4()))
            json_format.ParseDict({"display_name": "from Python", "spec": spec}, request.training_job)
            created = jobs.CreateTrainingJob(request, timeout=10)
            self.assertEqual(created.state, state.STATE_QUEUED)
            again = jobs.CreateTrainingJob(request, timeout=10)  # the same request_id
            self.assertEqual(again.uid, created.uid)

            states = []
            running = threading.Event()
            ended = threading.Event()
            watch = jobs.WatchTrainingJobs(api.WatchTrainingJobsRequest(parent="projects/default"), timeout=60)

            def follow():
                for event in watch:
                    if event.WhichOneof("event") == "updated":
                        if not states or states[-1] != event.updated.state:
                            states.append(event.updated.state)
                        if event.updated.state == state.STATE_RUNNING:
                            running.set()
                        if event.updated.state == state.STATE_CANCELLED:
                            ended.set()
                            return
            thread = threading.Thread(target=follow)
            thread.start()
            self.assertTrue(running.wait(30), states)
            jobs.CancelTrainingJob(api.CancelTrainingJobRequest(name=created.name), timeout=10)
            self.assertTrue(ended.wait(30), states)
            thread.join()
            self.assertEqual(states[-1], state.STATE_CANCELLED)
            self.assertEqual(sorted(states), states, "states went backwards")
            with self.assertRaises(grpc.RpcError) as refused:
                jobs.GetTrainingJob(api.GetTrainingJobRequest(name="projects/default/trainingJobs/none"), timeout=10)
            self.assertEqual(refused.exception.code(), grpc.StatusCode.NOT_FOUND)
            request = api.CreateTrainingJobRequest(parent="projects/default")
            json_format.ParseDict({"spec": {**spec, "max_steps": 0, "global_batch_size": 0}}, request.training_job)
            with self.assertRaises(grpc.RpcError) as refused:
                jobs.CreateTrainingJob(request, timeout=10)
            self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            details = dict(refused.exception.trailing_metadata())["grpc-status-details-bin"]
            from google.rpc import error_details_pb2, status_pb2
            status = status_pb2.Status.FromString(details)
            fields = set()
            for detail in status.details:
                if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                    bad = error_details_pb2.BadRequest()
                    detail.Unpack(bad)
                    fields.update(violation.field for violation in bad.field_violations)
            self.assertTrue({"spec.max_steps", "spec.global_batch_size"} <= {f.replace("training_job.", "") for f in fields}, fields)


if __name__ == "__main__":
    unittest.main()
