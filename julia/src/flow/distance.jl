"""
    Path(trajectory), Path(dense), Path(t, x)

A curve in parameter space: on the stretch from `t[k]` to `t[k+1]` parameter i is `Σ_m coefficients[i, m, k] s^(m - 1)`
with s from 0 to 1; straight lines between the points of a trajectory.
"""
struct Path
    t::Vector{Float64}
    coefficients::Array{Float64,3}
end
Path(trajectory::Trajectory) = Path(trajectory.t, trajectory.x)
Path(sol::DenseSolution) = Path(sol.t, Array{Float64,3}(sol.coefficients))

function Path(t::AbstractVector, x::AbstractMatrix)
    stretches = max(length(t) - 1, 1)
    c = zeros(size(x, 1), 2, stretches)
    for k in 1:stretches
        next = min(k + 1, length(t))
        c[:, 1, k] = x[:, k]
        c[:, 2, k] = x[:, next] .- x[:, k]
    end
    return Path(length(t) == 1 ? [t[1], t[1]] : Vector{Float64}(t), c)
end

"""
    trajectory_distance(a, b) -> (distance, t)

How far the trajectory `a` strays from the path `b`, and at which of its times: for each point x_m of `a` (a
`Trajectory`, a `FlowResult` or a P × M matrix) ‖x_m − b(t_m)‖, with times t_1 ≤ t_2 ≤ … that make the sum of the
squared distances smallest. `b` is a `FlowResult` (its dense output where it has one, else straight lines between the
points of its trajectory), a `DenseSolution` or a `Trajectory`.

Times have to grow, or a point would be compared with a part of the path that only passes by. The best times are found
by dynamic programming over the stretches of `b`: work and memory are proportional to points times stretches.

    a = flow(net, x0; alg = Adam(), maxiterations = 1000)
    b = flow(net, x0; maxT = 1e3, dense = true)
    distance, t = trajectory_distance(a, b)
"""
trajectory_distance(a, b) = trajectory_distance(points(a), path(b))

points(x::AbstractMatrix) = convert(Matrix{Float64}, x)
points(a::Trajectory) = points(a.x)
points(a::FlowResult) = points(a.trajectory)
path(b::Path) = b
path(b::FlowResult) = b.sol === nothing || length(b.sol.t) < 2 ? Path(b.trajectory) : Path(b.sol)
path(b::Union{Trajectory,DenseSolution}) = Path(b)

function trajectory_distance(X::Matrix{Float64}, b::Path)
    size(X, 1) == size(b.coefficients, 1) ||
        throw(DimensionMismatch("the trajectory has $(size(X, 1)) parameters, the reference " *
                                "$(size(b.coefficients, 1))"))
    M, K = size(X, 2), size(b.coefficients, 3)
    M * K <= 2 * 10^8 || throw(ArgumentError("$M points and a reference of $K stretches are too many: thin them out"))
    from = zeros(Int32, M, K)       # the stretch of the point before, if this point is at stretch k
    cost = zeros(K)
    gram = [stretch_products(b.coefficients, k) for k in 1:K]
    for m in 1:M
        best, at = Inf, 1
        for k in 1:K
            if cost[k] < best || k == 1
                best, at = cost[k], k
            end
            from[m, k] = at
            s = nearest(X, m, b.coefficients, k, gram[k])
            cost[k] = best + stretch_distance2(X, m, b.coefficients, k, s)
        end
    end
    distance, t = zeros(M), zeros(M)
    k, latest = M == 0 ? 0 : argmin(cost), (K, 1.0)
    for m in M:-1:1
        s = nearest(X, m, b.coefficients, k, gram[k])
        k == latest[1] && (s = min(s, latest[2]))
        distance[m] = sqrt(stretch_distance2(X, m, b.coefficients, k, s))
        t[m] = s == 0 ? b.t[k] : s == 1 ? b.t[k+1] : b.t[k] + s * (b.t[k+1] - b.t[k])
        latest = (k, s)
        k = Int(from[m, k])
    end
    return distance, t
end

"The products of the coefficients of powers 1, 2, … of one stretch."
stretch_products(c, k) = [dot(view(c, :, i, k), view(c, :, j, k)) for i in 2:size(c, 2), j in 2:size(c, 2)]

function stretch_distance2(X, m, c, k, s)
    sum = 0.0
    @inbounds for i in axes(X, 1)
        value = c[i, end, k]
        for j in size(c, 2)-1:-1:1
            value = c[i, j, k] + s * value
        end
        sum += abs2(X[i, m] - value)
    end
    return sum
end

"Where on stretch k point m is nearest: a minimum over s of ‖r − Σⱼ cⱼ sʲ‖², a polynomial of s."
function nearest(X, m, c, k, gram)
    d = size(c, 2) - 1
    products = ntuple(j -> j > d ? 0.0 : projected(X, m, c, k, j + 1), 8)
    if d == 1
        return gram[1, 1] > 0 ? clamp(products[1] / gram[1, 1], 0.0, 1.0) : 0.0
    end
    f(s) = polynomial_distance(products, gram, d, s)
    best, at = Inf, 0.0
    for j in 0:16
        value = f(j / 16)
        value < best && ((best, at) = (value, j / 16))
    end
    # golden section on both sides of the best
    low, high = max(at - 1 / 16, 0.0), min(at + 1 / 16, 1.0)
    ratio = (sqrt(5.0) - 1) / 2
    p, q = high - ratio * (high - low), low + ratio * (high - low)
    fp, fq = f(p), f(q)
    for _ in 1:40
        if fp <= fq
            high, q, fq = q, p, fp
            p = high - ratio * (high - low)
            fp = f(p)
        else
            low, p, fp = p, q, fq
            q = low + ratio * (high - low)
            fq = f(q)
        end
    end
    middle = (low + high) / 2
    return f(middle) < best ? middle : at
end

function projected(X, m, c, k, j)
    sum = 0.0
    @inbounds for i in axes(X, 1)
        sum += (X[i, m] - c[i, 1, k]) * c[i, j, k]
    end
    return sum
end

function polynomial_distance(products, gram, d, s)
    value, power = 0.0, s
    @inbounds for i in 1:d
        row, q = -2 * products[i], s
        for j in 1:d
            row += gram[i, j] * q
            q *= s
        end
        value += row * power
        power *= s
    end
    return value
end

"For `c_tool`: points (P × M), times and points (P × K + 1) or coefficients (P × terms × K) of the reference."
function border_distance(options, (X, t, path))
    P, terms = Int(options["parameters"]), Int(options["terms"])
    b = terms == 0 ? Path(t, reshape(path, P, :)) : Path(t, reshape(path, P, terms, :))
    return collect(trajectory_distance(reshape(X, P, :), b))
end
