// The interop cases with a grpc-go client: the official procedures (google.golang.org/grpc/interop) and our
// own beyond them. Prints PASS, FAIL or SKIP with the case's name on each line. An official procedure ends
// its process when it fails, so every case runs in a process of its own.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	pb "google.golang.org/grpc/interop/grpc_testing"
)

var address = flag.String("address", "", "HOST:PORT")

var skipped = map[string]string{
	"cacheable_unary":             "grpc-go has no GET requests",
	"client_compressed_streaming": "grpc-go compresses a whole call, not single messages",
}

func dial() *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///"+*address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(8<<20)))
	if err != nil {
		panic(err)
	}
	return conn
}

func official(name string, ctx context.Context, conn *grpc.ClientConn) bool {
	tc := pb.NewTestServiceClient(conn)
	soak := interop.SoakTestConfig{
		RequestSize: 271828, ResponseSize: 314159, PerIterationMaxAcceptableLatency: 5 * time.Second,
		OverallTimeout: 15 * time.Second, ServerAddr: *address, NumWorkers: 1, Iterations: 10,
	}
	switch name {
	case "empty_unary":
		interop.DoEmptyUnaryCall(ctx, tc)
	case "large_unary":
		interop.DoLargeUnaryCall(ctx, tc)
	case "client_streaming":
		interop.DoClientStreaming(ctx, tc)
	case "server_streaming":
		interop.DoServerStreaming(ctx, tc)
	case "ping_pong":
		interop.DoPingPong(ctx, tc)
	case "empty_stream":
		interop.DoEmptyStream(ctx, tc)
	case "custom_metadata":
		interop.DoCustomMetadata(ctx, tc)
	case "status_code_and_message":
		interop.DoStatusCodeAndMessage(ctx, tc)
	case "special_status_message":
		interop.DoSpecialStatusMessage(ctx, tc)
	case "unimplemented_method":
		interop.DoUnimplementedMethod(ctx, conn)
	case "unimplemented_service":
		interop.DoUnimplementedService(ctx, pb.NewUnimplementedServiceClient(conn))
	case "cancel_after_begin":
		interop.DoCancelAfterBegin(ctx, tc)
	case "cancel_after_first_response":
		interop.DoCancelAfterFirstResponse(ctx, tc)
	case "timeout_on_sleeping_server":
		interop.DoTimeoutOnSleepingServer(ctx, tc)
	case "rpc_soak":
		soak.ChannelForTest = func() (*grpc.ClientConn, func()) { return conn, func() {} }
		interop.DoSoakTest(ctx, soak)
	case "channel_soak":
		soak.ChannelForTest = func() (*grpc.ClientConn, func()) {
			one := dial()
			return one, func() { one.Close() }
		}
		interop.DoSoakTest(ctx, soak)
	default:
		return false
	}
	return true
}

// one runs a single case in this process; a failure ends it.
func one(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn := dial()
	defer conn.Close()
	if official(name, ctx, conn) {
		return
	}
	run, ok := further[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "no such case")
		os.Exit(1)
	}
	if err := run(ctx, pb.NewTestServiceClient(conn)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	cases := flag.String("cases", "", "comma-separated names")
	single := flag.String("single", "", "one case, in this process")
	flag.Parse()
	if *single != "" {
		one(*single)
		return
	}
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	for _, name := range strings.Split(*cases, ",") {
		if reason, found := skipped[name]; found {
			fmt.Println("SKIP", name, reason)
			continue
		}
		start := time.Now()
		out, err := exec.Command(self, "--address", *address, "--single", name).CombinedOutput()
		if err == nil {
			fmt.Println("PASS", name, time.Since(start).Milliseconds())
			continue
		}
		text := strings.Join(strings.Fields(string(out)), " ")
		if len(text) > 500 {
			text = text[len(text)-500:]
		}
		fmt.Println("FAIL", name, err, text)
	}
}
