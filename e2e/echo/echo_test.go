package echo_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/e2e/echo"
)

func TestServerAnswersWithTheRequest(t *testing.T) {
	server, err := echo.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	request, err := http.NewRequest(http.MethodPost, "http://127.0.0.1:"+strconv.Itoa(server.Port())+"/a?status=418&header=x-b:c", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header["X-Twice"] = []string{"1", "2"}
	request.Header.Set(echo.IDHeader, "7")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != 418 || response.Header.Get("x-b") != "c" {
		t.Errorf("status %d, headers %v; the query asked for 418 and x-b: c", response.StatusCode, response.Header)
	}
	var got echo.Request
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.Body != "hello" || got.Method != "POST" || strings.Join(got.Headers["x-twice"], " ") != "1 2" {
		t.Errorf("the answer is %s", text)
	}
	if seen := server.Seen("7"); len(seen) != 1 || seen[0].BodySHA256 != got.BodySHA256 {
		t.Errorf("remembered %v", seen)
	}
}
